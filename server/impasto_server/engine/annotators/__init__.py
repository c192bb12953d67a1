"""Networks of torch that make hints of pictures: pulled with the kit, or the user's own files."""
