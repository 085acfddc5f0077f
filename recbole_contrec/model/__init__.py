"""
recbole_contrec.model
#####################
The recommenders: RecBole's four methods over the parts of the package, nothing else.
"""
