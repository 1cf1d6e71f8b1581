"""Many scans: finding them, sharing them out among processes, and keeping account of them.

:mod:`.command` is the command line; :mod:`.discovery` and :mod:`.bids` find the scans and name the results;
:mod:`.ledger` keeps a record a scan and the claims of processes (:mod:`.locks`); :mod:`.engine` segments scans in a
process, overlapping reading, inference and writing; :mod:`.processes` (with :mod:`.worker`) and :mod:`.cluster` (Dask)
run engines in other processes, and :mod:`.dispatch` feeds them; :mod:`.cohort` writes the tables over all scans.
"""
