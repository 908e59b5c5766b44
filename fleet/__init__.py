"""The cloud side: keys, enrolment, publishing, the receiver and the lake.

Shares with the vehicle's code only the formats (`agent.formats`), the MQTT link, the error types and durable
writes.
"""
