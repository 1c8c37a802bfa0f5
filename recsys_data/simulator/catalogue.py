"""The words of the storefront: its category tree, brands, attributes, and the places its people live in.

Plain tables that `world` draws from. Prices are medians in euros; weights are relative.
"""

from typing import NamedTuple

# department -> category -> (kind of item, median price)
TREE: dict[str, dict[str, list[tuple[str, float]]]] = {
    "Home & Kitchen": {
        "Cookware": [("frying pan", 38), ("saucepan", 44), ("baking tin", 16)],
        "Coffee & Tea": [("espresso machine", 289), ("teapot", 29), ("café filter", 14)],
        "Bedding": [("duvet", 95), ("pillow", 34), ("linen sheet", 58)],
        "Lighting": [("desk lamp", 49), ("pendant light", 89), ("string lights", 19)],
    },
    "Electronics": {
        "Audio": [("headphones", 129), ("portable speaker", 79), ("turntable", 219)],
        "Computing": [("laptop", 949), ("mechanical keyboard", 109), ("monitor", 279)],
        "Photography": [("camera", 689), ("tripod", 75), ("lens filter", 32)],
        "Smart Home": [("thermostat", 149), ("door sensor", 29), ("smart plug", 21)],
    },
    "Fashion": {
        "Shoes": [("running shoes", 119), ("leather boots", 159), ("sandals", 49)],
        "Outerwear": [("rain jacket", 139), ("wool coat", 229), ("down vest", 99)],
        "Basics": [("t-shirt", 22), ("socks", 9), ("hoodie", 55)],
        "Accessories": [("scarf", 29), ("backpack", 85), ("sunglasses", 95)],
    },
    "Sports & Outdoors": {
        "Cycling": [("city bike", 549), ("bike helmet", 65), ("bike light", 27)],
        "Camping": [("tent", 189), ("sleeping bag", 99), ("camping stove", 47)],
        "Fitness": [("yoga mat", 33), ("kettlebell", 42), ("jump rope", 13)],
        "Winter": [("ski goggles", 89), ("snowboard", 329), ("thermal shirt", 48)],
    },
    "Books & Games": {
        "Fiction": [("novel", 14), ("thriller", 12), ("short stories", 15)],
        "Non-fiction": [("cookbook", 26), ("travel guide", 19), ("biography", 18)],
        "Children": [("picture book", 11), ("audiobook", 17), ("activity book", 9)],
        "Board Games": [("strategy game", 45), ("party game", 24), ("puzzle", 18)],
    },
    "Beauty & Health": {
        "Skincare": [("face cream", 27), ("sunscreen", 16), ("serum", 34)],
        "Hair": [("shampoo", 9), ("hair dryer", 59), ("styling brush", 22)],
        "Wellbeing": [("vitamin tablets", 15), ("massage gun", 119), ("scented candle", 24)],
        "Fragrance": [("eau de parfum", 79), ("cologne", 55), ("room spray", 21)],
    },
    "Garden & DIY": {
        "Plants": [("herb seeds", 4), ("olive tree", 65), ("planter", 28)],
        "Tools": [("cordless drill", 119), ("screwdriver set", 29), ("workbench", 149)],
        "Outdoor Living": [("grill", 249), ("garden chair", 59), ("hammock", 69)],
        "Paint": [("wall paint", 39), ("brush set", 14), ("wood oil", 23)],
    },
    "Toys & Baby": {
        "Building": [("building blocks", 39), ("marble run", 49), ("model train", 89)],
        "Dolls & Figures": [("doll", 29), ("action figure", 19), ("plush bear", 23)],
        "Baby": [("stroller", 389), ("baby carrier", 109), ("bib set", 12)],
        "Learning": [("science kit", 34), ("globe", 45), ("wooden abacus", 21)],
    },
}

BRANDS = [
    "Aurélia", "Björk & Sön", "Brightwell", "Casa Niña", "Dornbusch", "Ellery", "Fjällhus", "Granit",
    "Hikari 光", "Iversen", "Juniper Row", "Köhler Werk", "Lumen", "Maré Alta", "Northmoor", "Ostrava",
    "Pilgrim", "Quillon", "Rosewater", "Søndergaard", "Tallis", "Umbra Verde", "Vexel", "Wrenfield",
    "Xenia", "Ysolde", "Zürichberg", "Ateş", "Coastline", "Émile & Co", "Foundry 12", "Greenhollow",
]  # fmt: skip

COLOURS = ["black", "white", "navy", "forest green", "terracotta", "grey", "crème", "sky blue", "rosé", "sand"]
MATERIALS = ["cotton", "oak", "steel", "recycled plastic", "wool", "aluminium", "bamboo", "ceramic", "leather"]
SIZES = ["S", "M", "L", "XL", "one size"]
TAGS = ["gift idea", "for mum", "summer", "cosy", "schön", "too big", "wishlist", "büro", "bargain", "お気に入り"]


class Place(NamedTuple):
    """Where somebody lives; `timezone` is an IANA name, `weight` the share of the people there."""

    country: str
    region: str
    city: str
    lat: float
    lon: float
    timezone: str
    locale: str
    currency: str
    weight: float


PLACES = [
    Place("DE", "Berlin", "Berlin", 52.52, 13.405, "Europe/Berlin", "de-DE", "EUR", 12),
    Place("DE", "Bayern", "München", 48.137, 11.575, "Europe/Berlin", "de-DE", "EUR", 9),
    Place("DE", "Nordrhein-Westfalen", "Köln", 50.937, 6.96, "Europe/Berlin", "de-DE", "EUR", 7),
    Place("FR", "Île-de-France", "Paris", 48.857, 2.352, "Europe/Paris", "fr-FR", "EUR", 9),
    Place("FR", "Auvergne-Rhône-Alpes", "Lyon", 45.764, 4.836, "Europe/Paris", "fr-FR", "EUR", 4),
    Place("GB", "England", "London", 51.507, -0.128, "Europe/London", "en-GB", "GBP", 10),
    Place("GB", "Scotland", "Glasgow", 55.864, -4.252, "Europe/London", "en-GB", "GBP", 3),
    Place("CH", "Zürich", "Zürich", 47.377, 8.541, "Europe/Zurich", "de-CH", "CHF", 3),
    Place("ES", "Comunidad de Madrid", "Madrid", 40.417, -3.704, "Europe/Madrid", "es-ES", "EUR", 5),
    Place("PL", "Mazowieckie", "Warszawa", 52.23, 21.012, "Europe/Warsaw", "pl-PL", "PLN", 4),
    Place("TR", "İstanbul", "İstanbul", 41.009, 28.978, "Europe/Istanbul", "tr-TR", "TRY", 3),
    Place("US", "New York", "New York", 40.713, -74.006, "America/New_York", "en-US", "USD", 9),
    Place("US", "Illinois", "Chicago", 41.878, -87.63, "America/Chicago", "en-US", "USD", 4),
    Place("US", "California", "Los Angeles", 34.052, -118.244, "America/Los_Angeles", "en-US", "USD", 6),
    Place("CA", "Québec", "Montréal", 45.502, -73.567, "America/Toronto", "fr-CA", "CAD", 3),
    Place("BR", "São Paulo", "São Paulo", -23.551, -46.633, "America/Sao_Paulo", "pt-BR", "BRL", 4),
    Place("IN", "Karnataka", "Bengaluru", 12.972, 77.595, "Asia/Kolkata", "en-IN", "INR", 4),
    Place("JP", "東京都", "東京", 35.677, 139.65, "Asia/Tokyo", "ja-JP", "JPY", 4),
    Place("AU", "New South Wales", "Sydney", -33.869, 151.209, "Australia/Sydney", "en-AU", "AUD", 3),
    Place("NZ", "Auckland", "Auckland", -36.848, 174.763, "Pacific/Auckland", "en-NZ", "NZD", 1),
]

# Units of the currency for one euro, and the decimals its prices have.
RATES = {
    "EUR": (1.0, 2), "GBP": (0.86, 2), "CHF": (0.95, 2), "PLN": (4.3, 2), "TRY": (36.0, 2), "USD": (1.1, 2),
    "CAD": (1.5, 2), "BRL": (6.0, 2), "INR": (92.0, 0), "JPY": (165.0, 0), "AUD": (1.65, 2), "NZD": (1.8, 2),
}  # fmt: skip
