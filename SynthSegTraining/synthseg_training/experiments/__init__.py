"""The papers' experiments, each one command of ``synthseg-train experiment`` that goes on where it was stopped.

An experiment reads its scans (:mod:`.dataset`), keeps what it has done (:mod:`.ledger`), and ends in tables, figures
and one page (:mod:`.report`).
"""
