"""Retraining as durable jobs: queued in a database, run in a process of their own, resumed after any kill.

    ledger.submit --database--> worker (a process a device) --> train_child (a process a job) --> weights/<version>/
                                                                        +--> state/runs/<job id>/: log, checkpoint

The database knows which jobs there are and what was asked of them; the run folder knows how far one has come.
"""
