"""The wire of Impasto: messages, codec, connection state, capability schema, errors. See SPEC.md beside this package."""
