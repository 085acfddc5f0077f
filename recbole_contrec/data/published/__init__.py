"""
recbole_contrec.data.published
##############################
Data sets as their authors publish them -> tables of RecBole's atomic files.

A module a source, with a function that reads its files and one that looks at what is here already; ``recipes`` lists
them all with their addresses. ``records`` reads lines of JSON, ``zips`` members of archives.
"""
