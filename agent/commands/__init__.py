"""The commands of `headunit-agent`: one file each."""
