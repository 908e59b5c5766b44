"""Corrects times that a vehicle stamped before its clock was set (docs/decisions/0009).  Pure: SQL text only.

A car without a battery-backed clock boots in 1970, or in the year in which its image was built.  It stamps frames with
this wrong time until it gets the time from GNSS or the network.

Each batch carries two clock readings of the same moment: the wall clock and CLOCK_BOOTTIME.  Their difference is the
wall time of the boot.  The batch also carries the id of the boot and the quality of the wall clock.  A later batch of
the same boot with a good clock shows the true wall time of the boot.  The difference between the true and the wrong
wall time of the boot is the error of the wrong clock.

The stored rows never change.  The view `samples_corrected` has all columns of `samples`, and two more:

    time_corrected   the time; moved by the difference if the clock was wrong and the difference is known
    time_quality     'as stamped': the clock was set, or the sample comes from a recorded log
                     'corrected':  the clock was not set, and the time was moved
                     'not set':    the clock was not set, and the difference is unknown
"""

from typing import Final

# A batch may begin before the clock was set, and end after that.  Its clock reading is then good, but its first samples
# have wrong times.  These times are recognised because they lie before the true wall time of the boot.  They are moved
# by the difference between the first good reading and the last poor reading of the boot.  The margin of one minute
# (60000000 µs) keeps right times unmoved if the clock was slewed after the boot.
#
# A batch may also close when the clock has just been set, and the vehicle does not say so yet.  Its reading agrees with
# the first good reading, and counts as set.  10000 µs are more than a clock is slewed in that moment.
SAMPLES_CORRECTED: Final = """
CREATE VIEW samples_corrected AS
WITH readings AS (
    SELECT vehicle, epoch, seq, digest, boot_id, clock_boottime_us, clock IN ('network', 'gnss') AS good,
           clock IN ('unsynchronised', 'rtc') AS poor, epoch_us(clock_wall) - clock_boottime_us AS boot_us
    FROM batches
), truths AS (
    SELECT vehicle, boot_id, arg_min(boot_us, clock_boottime_us) FILTER (good) AS good_us
    FROM readings WHERE boot_id <> '' GROUP BY vehicle, boot_id
), judged AS (
    SELECT readings.*, good_us, poor AND coalesce(abs(boot_us - good_us) > 10000, true) AS unset,
           (good OR poor) AND NOT unset AS is_set
    FROM readings LEFT JOIN truths USING (vehicle, boot_id)
), boots AS (
    SELECT vehicle, boot_id, arg_max(boot_us, clock_boottime_us) FILTER (unset) AS poor_us
    FROM judged WHERE boot_id <> '' GROUP BY vehicle, boot_id
), moved AS (
    SELECT samples.*,
           CASE WHEN unset THEN good_us - boot_us
                WHEN is_set AND epoch_us(time) < boot_us - 60000000 THEN good_us - poor_us
                WHEN NOT unset THEN 0 END AS by_us,
           unset OR (is_set AND epoch_us(time) < boot_us - 60000000) AS wrong
    FROM samples
    LEFT JOIN judged USING (vehicle, epoch, seq, digest)
    LEFT JOIN boots USING (vehicle, boot_id)
)
SELECT * EXCLUDE (by_us, wrong),
       time + to_microseconds(coalesce(by_us, 0)) AS time_corrected,
       CASE WHEN NOT coalesce(wrong, false) THEN 'as stamped'
            WHEN by_us IS NULL THEN 'not set' ELSE 'corrected' END AS time_quality
FROM moved"""
