"""HTTP: one file per resource.  The only folder, besides `gateway.app`, that imports Litestar."""
