"""What processes report to each other, as typed values with one encode and one decode each. No torch, no ray."""
