"""The command line: `impasto serve`, one verb a mode, models, plug-ins, doctor."""
