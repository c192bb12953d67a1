"""The kit: small networks taken from packages, converted once, unpacked where they are used."""
