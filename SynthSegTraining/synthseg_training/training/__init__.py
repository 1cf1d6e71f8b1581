"""The training loop and what it needs: recipes, schedules, weight averaging, checkpoints, learning curves.

Everything here runs with torch and numpy alone (PyYAML, tqdm and matplotlib are used where present), so that a borrowed
GPU machine with nothing installed can train.
"""
