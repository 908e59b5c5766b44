"""Mappings from CAN signals to paths of the Vehicle Signal Specification (VSS), in the form of KUKSA's CAN provider.

reading        reads a mapping document: a VSS tree in JSON, or a flat overlay
pushed         mappings that the fleet pushes
entries        what a mapping says of one VSS path, and how a value of a signal becomes a value of the path
formula        parses and computes the formulas of `math`
tokens         splits a formula into tokens
catalog        a catalog of VSS, as vss-tools writes it
catalog_check  a mapping compared with catalogs
operations     what the operators and functions of formulas compute
"""
