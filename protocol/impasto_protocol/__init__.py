"""The wire of Impasto: messages, codec, connection state, capability schema, errors (see SPEC.md)."""
