"""The broker's access-control list, in the format of mosquitto.  Pure.

Invariant: a vehicle can use only its own topics.  The broker takes the common name of a client's certificate as its
user name, and the list ties topics to user names.  A stolen vehicle key therefore gives no access to another vehicle's
topics.
"""

from typing import Final

ACCESS_LIST: Final = """\
# Topics: hu/v1/...  A user is the CN of the client's certificate: a vehicle's pseudonym, or `receiver`.
user receiver
topic read hu/v1/up/#
topic write hu/v1/ack/+
topic read hu/v1/sync/+
topic write hu/v1/push/+
topic read hu/v1/fetch/+
topic write hu/v1/chunk/+
topic write hu/v1/nudge

# Every client may use the topics that carry its own name, and may read nudges.
pattern write hu/v1/up/+/%u/+
pattern read hu/v1/ack/%u
pattern write hu/v1/sync/%u
pattern read hu/v1/push/%u
pattern write hu/v1/fetch/%u
pattern read hu/v1/chunk/%u
pattern read hu/v1/nudge
"""
