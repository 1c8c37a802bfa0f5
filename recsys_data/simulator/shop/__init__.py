"""The simulated shop's own systems: its database, and what its CRM, PIM and CMS export."""
