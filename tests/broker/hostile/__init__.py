"""Clients that mean harm, or are broken: what each may cost the broker and the others (R36)."""
