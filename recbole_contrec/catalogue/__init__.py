"""
recbole_contrec.catalogue
#########################
What there is on disk to choose from: folders with YAML files (:mod:`.places`) and data sets (:mod:`.datasets`).
"""
