"""Who is who: the built-in authority, invites, keys, certificates, receipts. No network here."""
