"""What a fleet folder holds: keys, certificates, the registry of vehicles."""
