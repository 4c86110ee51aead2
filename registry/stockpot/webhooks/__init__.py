"""MLflow's webhooks, received: which deliveries are believed, and who is told of what changed.

They only shorten the wait. The reconciling look at the registry is the truth: a delivery may be late, lost or
dropped, and all that one leads to is an earlier look.
"""
