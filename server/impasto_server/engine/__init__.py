"""Pure inference: a job in, pictures out. Imports no service code and opens no socket."""
