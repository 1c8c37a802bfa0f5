"""Amazon Personalize: recommendations, rankings and intake of events, items and users, as its SDKs call them."""
