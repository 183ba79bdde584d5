"""The pod templates that ship with Podyard, as package data; `dispatcher.manifests.template` reads them."""
