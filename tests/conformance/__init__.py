"""The cases of the public TUF conformance suite, run against the vehicle's client of pushes.

The suite (https://github.com/theupdateframework/tuf-conformance) starts a client as a program with three commands
(`init`, `refresh`, `download`) and serves it a repository that each case changes or damages.  The suite is not on PyPI,
so each of its cases is written again here, from its public description, under the name that it has there.

    repository.py   signs and serves a repository as a case wants it
    client.py       the adapter: the three commands, on the vehicle's real push store and verifier
    case.py         what a case is, what it may expect, and where the vehicle differs by intent
    basic.py, downloads.py, expiry.py, keys.py, rollbacks.py, rotations.py, delegations.py   the cases
    __main__.py     `make conformance`: all cases through the real verifier process, into build/conformance.json

A vehicle takes one bundle, not single files, so the requests that the suite counts do not exist here.  The repository
serves a vehicle everything that it has published and that a bundle can carry.
"""
