"""What a pod may ask for, what it asked for, and what is wrong with it.

Both programs read a pod through this package and so give the same meaning to the same bytes. Three questions are kept
apart, and each kind of request (`disk`, `network`, `rdt`, `sriov`, `cpu`) answers them in one file:

* `read`:  what do the annotations mean? Needs nothing but the annotations; the node enforcer stops here.
* `fit`:   does that fit this pod's spec (volumes, containers, host network)?
* `judge`: is it allowed here (policy, and what the catalogue knows of the cluster)?

Nothing here does I/O or knows a clock, an environment or a setting that was not passed in. Imports: the standard
library and pydantic. Imported by everything, imports no other room.
"""
