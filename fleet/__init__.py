"""The cloud side: keys, enrolment, publishing, the receiver and the lake.

The package uses only four things of the vehicle's code: the formats (`agent.formats`), the MQTT link, the error types,
and the system layer (durable writes, logging, command-line helpers).
"""
