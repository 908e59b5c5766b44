"""Pushes: from a bundle of unknown origin to the release in force, and back again where the release does harm.

pushes     the one door: offers a bundle, tells what is in force, runs trials
examine    starts the verifier process and reads its verdict
verifier   the process: trust (TUF), then validate (the documents)
trial      which release is in force, as a pure state machine
store      what survives a power cut
release    the release, and the messages between agent and verifier
receipts   what the fleet hears of a push
built      the earliest time that can be
"""
