"""
recbole_contrec.data
####################
From files to batches: ``prepare`` converts public data sets to RecBole's atomic files, ``loading`` gives the three
data loaders of a run, ``windows`` trains all positions at once, and ``text`` describes the items.
"""
