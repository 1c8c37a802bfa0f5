import pytest

PRODUCT = {
    "product_id": "p1",
    "sku": "G-32",
    "category": "Games",
    "name": "Monopoly",
    "price": 18.99,
    "quantity": 2,
    "position": 3,
    "coupon": "MAY",
}
KEPT = {"sku": "G-32", "category": "Games", "name": "Monopoly", "coupon": "MAY"}
ORDER = {
    "order_id": "o1",
    "affiliation": "Store",
    "total": 27.5,
    "revenue": 25,
    "coupon": "hasbros",
    "currency": "USD",
    "products": [
        {"product_id": "p1", "price": 19, "quantity": 1, "name": "Monopoly"},
        {"product_id": "p2", "price": 3, "quantity": 2, "coupon": "line"},
    ],
}


@pytest.mark.parametrize(
    ("event", "native"),
    [
        ("Product Clicked", "click"),
        ("Product Viewed", "view"),
        ("Product Added", "add_to_cart"),
        ("Product Removed", "remove_from_cart"),
        ("Product Shared", "share"),
        ("Product Added to Wishlist", "bookmark"),
        ("Viewed Product", "view"),
        ("Added Product", "add_to_cart"),
    ],
)
def test_product_events_become_native_types(collect, event, native):
    [found] = collect(event=event, properties=PRODUCT)
    assert found["event_id"] == "m1"
    assert (found["type"], found["event_name"]) == (native, event)
    assert (found["item_id"], found["price"], found["quantity"], found["position"]) == ("p1", 18.99, 2, 3)
    assert found["value"] == 37.98
    assert found["properties"] == KEPT


@pytest.mark.parametrize(
    "event", ["product viewed", "product_viewed", "PRODUCT VIEWED", "ProductViewed", "product-viewed"]
)
def test_event_names_are_recognised_however_they_are_spelled(collect, event):
    [found] = collect(event=event, properties={"product_id": "p1"})
    assert (found["type"], found["event_name"]) == ("view", event)


def test_a_search_carries_its_query(collect):
    [found] = collect(event="Products Searched", properties={"query": "blue roses", "results": 7})
    assert (found["type"], found["query"], found["properties"]) == ("search", "blue roses", {"results": 7})


@pytest.mark.parametrize("event", ["Product List Viewed", "Product List Filtered", "Viewed Product Category"])
def test_a_product_list_is_one_impression_per_product(collect, event):
    filters = [{"type": "price", "value": "under-25"}]
    products = [{"product_id": "p1", "position": 4, "name": "Soap"}, {"product_id": "p2", "price": 7.6}]
    found = collect(
        event=event,
        properties={"list_id": "deals", "category": "Beauty", "filters": filters, "products": products},
    )
    assert [(e["event_id"], e["type"], e["item_id"], e["position"], e["list_id"]) for e in found] == [
        ("m1:1", "impression", "p1", 4, "deals"),
        ("m1:2", "impression", "p2", 2, "deals"),
    ]
    shared = {"category": "Beauty", "filters": filters}
    assert [e["properties"] for e in found] == [{"name": "Soap", "list": shared}, {"list": shared}]


def test_an_impression_says_what_recommended_it(collect):
    ranked = {"recommendation_score": "0.75", "propensity": 0.2, "variant": "Black"}
    products = [{"product_id": "p1", **ranked}, {"product_id": "p2", "propensity": 0}]
    list_ = {"recommendation_id": "r1", "recommendation_model": "als-3", "recommendationVariant": "B"}
    first, second = collect(event="Product List Viewed", properties={**list_, "products": products})
    names = ("recommendation_id", "model", "variant", "score", "propensity")
    assert [first.get(name) for name in names] == ["r1", "als-3", "B", 0.75, 0.2]
    assert [second.get(name) for name in names] == ["r1", "als-3", "B", None, None]
    # A propensity that cannot be one stays a property, as does the variant of a product.
    assert (first["properties"], second["properties"]) == ({"variant": "Black"}, {"propensity": 0})


@pytest.mark.parametrize(("event", "native"), [("Order Completed", "purchase"), ("Order Refunded", "refund")])
def test_an_order_is_one_event_per_product(collect, event, native):
    found = collect(event=event, properties=ORDER)
    assert [(e["event_id"], e["type"], e["item_id"]) for e in found] == [
        ("m1:1", native, "p1"),
        ("m1:2", native, "p2"),
    ]
    assert [(e["value"], e["price"], e["quantity"], e["currency"], e["order_id"]) for e in found] == [
        (19, 19, 1, "USD", "o1"),
        (6, 3, 2, "USD", "o1"),
    ]
    order = {"affiliation": "Store", "total": 27.5, "revenue": 25, "coupon": "hasbros"}
    assert [e["properties"] for e in found] == [
        {"name": "Monopoly", "order": order},
        {"coupon": "line", "order": order},
    ]


def test_an_order_of_one_product_is_a_line_too(collect):
    [found] = collect(event="Order Completed", properties={"order_id": "o1", "products": [PRODUCT]})
    assert (found["event_id"], found["type"], found["item_id"]) == ("m1:1", "purchase", "p1")


def test_a_currency_of_the_line_hides_none_of_the_order(collect):
    [found] = collect(
        event="Order Completed",
        properties={"currency": "USD", "products": [{"product_id": "p1", "currency": "EUR"}]},
    )
    assert (found["currency"], found["properties"]) == ("EUR", {"order": {"currency": "USD"}})


def test_a_refund_of_a_whole_order_is_kept_under_its_own_name(collect):
    [found] = collect(event="Order Refunded", properties={"order_id": "o1", "total": 30, "reason": "late"})
    assert (found["type"], found["event_name"]) == ("custom", "Order Refunded")
    assert (found["order_id"], found["value"], found["properties"]) == ("o1", 30, {"reason": "late"})


def test_an_order_line_without_a_product_id_keeps_its_neighbours_good(collect):
    found = collect(event="Order Completed", properties={"products": [{"name": "?"}, "p2", {"sku": "s3"}]})
    assert [(e["type"], e.get("item_id")) for e in found] == [
        ("custom", None),
        ("custom", None),
        ("purchase", "s3"),
    ]
    assert [e.get("properties") for e in found] == [{"name": "?"}, {"product": "p2"}, None]


@pytest.mark.parametrize(
    "event",
    [
        "Promotion Viewed",
        "Promotion Clicked",
        "Cart Viewed",
        "Checkout Started",
        "Checkout Step Viewed",
        "Checkout Step Completed",
        "Payment Info Entered",
        "Coupon Entered",
        "Order Updated",
        "Order Cancelled",
        "Product Removed from Wishlist",
        "Wishlist Product Added to Cart",
        "Signed Up",
    ],
)
def test_other_events_are_custom_under_their_own_name(collect, event):
    [found] = collect(event=event, properties={**ORDER, "step": 2, "position": "home_banner_top"})
    assert (found["event_id"], found["type"], found["event_name"]) == ("m1", "custom", event)
    assert (found["order_id"], found["value"]) == ("o1", 25)
    assert found["properties"] == {
        "affiliation": "Store",
        "total": 27.5,
        "coupon": "hasbros",
        "products": ORDER["products"],
        "step": 2,
        "position": "home_banner_top",
    }


def test_a_review_with_a_rating_is_a_rating(collect):
    [found] = collect(event="Product Reviewed", properties={"product_id": "p1", "rating": "4.5", "review_body": "ok"})
    assert (found["type"], found["rating"], found["properties"]) == ("rating", 4.5, {"review_body": "ok"})


@pytest.mark.parametrize("properties", [{"product_id": "p1"}, {"product_id": "p1", "rating": 95}, {"rating": 4}])
def test_a_review_without_what_a_rating_needs_is_custom(collect, properties):
    [found] = collect(event="Product Reviewed", properties=properties)
    assert (found["type"], found["event_name"]) == ("custom", "Product Reviewed")


@pytest.mark.parametrize(
    ("event", "properties", "native"),
    [
        ("like", {"item_id": "i1"}, {"type": "like", "item_id": "i1"}),
        ("Dislike", {"item_id": "i1"}, {"type": "dislike"}),
        ("rating", {"item_id": "i1", "rating": 8}, {"type": "rating", "rating": 8}),
        ("dwell", {"item_id": "i1", "dwell_ms": 1200}, {"type": "dwell", "dwell_ms": 1200}),
        ("scroll", {"item_id": "i1", "scroll_depth": 0.5}, {"type": "scroll", "scroll_depth": 0.5}),
        ("share", {"id": 17}, {"type": "share", "item_id": "17"}),
        ("Tag", {"item_id": "i1", "tag": "cosy"}, {"type": "tag", "tag": "cosy"}),
        ("add to cart", {"item_id": "i1"}, {"type": "add_to_cart"}),
        ("page_view", {}, {"type": "page_view"}),
        ("purchase", {"products": [{"item_id": "i1"}]}, {"type": "purchase", "item_id": "i1"}),
        (
            "like",
            {"colour": "red"},
            {"type": "custom", "event_name": "like", "properties": {"colour": "red"}},
        ),
        (
            "scroll",
            {"item_id": "i1", "scroll_depth": 75},
            {"type": "scroll", "properties": {"scroll_depth": 75}},
        ),
    ],
)
def test_native_names_become_native_types_when_their_properties_fit(collect, event, properties, native):
    [found] = collect(event=event, properties=properties)
    assert found | native == found


def test_values_that_do_not_fit_stay_where_they_were(collect):
    odd = {"product_id": {"id": 1}, "quantity": 2.5, "price": "1,299", "position": "top", "value": -5}
    [found] = collect(event="Product Viewed", properties={**odd, "sku": 12})
    assert (found["type"], found["item_id"], found["properties"]) == ("view", "12", odd)


def test_a_list_that_would_swell_beyond_measure_stays_one_event(collect):
    properties = {"note": "x" * 20_000, "products": [{"product_id": str(n)} for n in range(100)]}
    [found] = collect(event="Product List Viewed", properties=properties)
    assert (found["type"], found["properties"]) == ("custom", properties)
