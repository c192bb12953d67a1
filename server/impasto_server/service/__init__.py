"""The websocket shell around the engine: connections, jobs, journal, catalogue, blobs, workers."""
