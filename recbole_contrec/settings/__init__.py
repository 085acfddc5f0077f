"""
recbole_contrec.settings
########################
From YAML files and the command line to the checked configuration of a run: the schema that YAML comments are
(:mod:`.schema`), the models that there are (:mod:`.registry`, :mod:`.classes`), values that only make sense
together (:mod:`.checks`), and RecBole's ``Config`` with all that (:mod:`.config`).
"""
