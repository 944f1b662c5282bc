"""URIs, Arrow schemas, artifacts and their manifests, the shard ledger, formats, cards. No Ray."""
