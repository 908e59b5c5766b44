"""Pushes: verify the bundles that arrive, apply a release on trial, and take back a release that harms the agent.

pushes     the entry point: takes bundles, knows the release in force, runs trials
examine    starts the verifier process and reads its verdict
verifier   the process that checks one bundle
trust      the first check of the verifier: signatures and versions (TUF)
validate   the second check of the verifier: the documents
trial      the state machine that decides which release is in force
starts     records how the starts with a release ended
store      the files that survive a power cut
release    the release, and the messages between agent and verifier
receipts   the events that report a push to the fleet
built      the time of the build; a clock that shows an earlier time is wrong
"""
