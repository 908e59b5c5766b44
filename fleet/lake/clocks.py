"""Correct times that a vehicle stamped before its clock was set (docs/decisions/0009).  Pure: SQL.

A car without a battery-backed clock boots in 1970, or in the year its image was built, and stamps frames so until GNSS
or the network tells it the time.  Each batch carries two readings of one moment, wall clock and CLOCK_BOOTTIME, the
boot they belong to, and how good the wall clock was; their difference is the wall time of the boot.  A later batch of
the same boot with a good clock says when the boot really was, so every earlier time of that boot moves by the
difference.

The rows stay as they arrived, so nothing here touches exactly once; the view `samples_corrected` adds two columns:

    time_corrected   the time, moved where it was wrong and the right one is known
    time_quality     'as stamped': the clock was set (or the log a recording's); 'corrected'; 'not set': the clock was
                     not set, and nothing tells by how much it was wrong
"""

from typing import Final

# A good clock's batch may begin before the clock was set: what it says of a time before its own boot was stamped by
# the clock as it was then, which the last batch before tells.  A minute for clocks that were slewed meanwhile.
SAMPLES_CORRECTED: Final = """
CREATE VIEW samples_corrected AS
WITH readings AS (
    SELECT vehicle, epoch, seq, boot_id, clock_boottime_us, clock IN ('network', 'gnss') AS good,
           clock IN ('unsynchronised', 'rtc') AS poor, epoch_us(clock_wall) - clock_boottime_us AS boot_us
    FROM batches
), boots AS (
    SELECT vehicle, boot_id, arg_min(boot_us, clock_boottime_us) FILTER (good) AS good_us,
           arg_max(boot_us, clock_boottime_us) FILTER (poor) AS poor_us
    FROM readings WHERE boot_id <> '' GROUP BY vehicle, boot_id
), moved AS (
    SELECT samples.*,
           CASE WHEN poor THEN good_us - boot_us
                WHEN good AND epoch_us(time) < boot_us - 60000000 THEN good_us - poor_us
                WHEN good OR NOT poor THEN 0 END AS by_us,
           poor OR (good AND epoch_us(time) < boot_us - 60000000) AS wrong
    FROM samples
    LEFT JOIN readings USING (vehicle, epoch, seq)
    LEFT JOIN boots USING (vehicle, boot_id)
)
SELECT * EXCLUDE (by_us, wrong),
       time + to_microseconds(coalesce(by_us, 0)) AS time_corrected,
       CASE WHEN NOT coalesce(wrong, false) THEN 'as stamped'
            WHEN by_us IS NULL THEN 'not set' ELSE 'corrected' END AS time_quality
FROM moved"""
