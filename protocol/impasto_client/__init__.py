"""What both editors share and no toolkit knows: connection, jobs, snapshots, finding and starting the server."""
