"""
recbole_contrec.model
#####################
The recommenders, a module each: RecBole's four methods over the parts of the package. What several of them share stands in
:mod:`.base`.
"""
