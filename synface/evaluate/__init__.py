"""Verification of recognizers on rendered and given benchmarks; audit of datasets."""
