"""Take over documents of AWS IoT FleetWise: campaigns, decoder manifests, signal catalogues, and more.

files           reads JSON and YAML files
cloudformation  turns the spelling of CloudFormation into that of AWS's API
recognition     finds out what a document is
fields          the fields of the simple parts of the API, and their limits
forms           the documents of the API: form of each kind
decoders        CAN decoders to messages and signals of a DBC, with names
dbc_text        writes a DBC
vss_mapping     writes the mapping of fully qualified names that a DBC cannot carry
campaigns       campaigns to ours
findings        what was taken, taken with a difference, or refused, and why
takeover        all documents together
"""
