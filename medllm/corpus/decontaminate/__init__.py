"""Decontamination: held-out exam questions in any text, in any order, spelling or wording."""
