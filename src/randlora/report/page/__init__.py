"""`randlora report`: finished runs and analyses as one page that asks nothing of the network.

`finding` reads the folders, `grouping` puts runs that differ in seed and learning rate together, `figures`, `tables`
and `summary` say what came out, `write` makes the page of them.
"""
