"""A listening study (the paper's appendix A): people rate the sounds of several methods without knowing whose they are.

A folder of videos for each method goes in (`methods`), every participant gets an order and blinded names (`sheets`),
pages are served (`server`, `pages`), answers are kept in one SQLite file (`answers`), and a table comes out
(`analysis`).
"""
