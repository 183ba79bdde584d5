"""The pod templates that ship with Podyard, as package data; `dispatcher.template` reads them."""
