"""
recbole_contrec.tuning
######################
Settings chosen on validation, by Optuna: the :mod:`.space` they are drawn from, the :mod:`.study` that draws them, the
:mod:`.report` of what was found.
"""
