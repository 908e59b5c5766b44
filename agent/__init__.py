"""The on-vehicle agent: CAN traffic up to the fleet, signed toggles and campaigns back."""
