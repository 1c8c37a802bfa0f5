from recsys_data.ingestion.streaming.collector.segment.context import to_native


def test_a_browsers_context_is_mapped():
    page = {
        "path": "/academy/",
        "referrer": "",
        "search": "?q",
        "title": "Academy",
        "url": "https://x.com/academy/",
    }
    assert to_native({"page": page, "userAgent": "Mozilla", "locale": "en-US", "timezone": "Europe/Amsterdam"}) == {
        "page": "/academy/",
        "url": "https://x.com/academy/",
        "referrer": "",
        "page_details": {"search": "?q", "title": "Academy"},
        "user_agent": "Mozilla",
        "locale": "en-US",
        "timezone": "Europe/Amsterdam",
    }


def test_a_phones_context_is_mapped():
    given = {
        "app": {"name": "Initech", "version": 545, "build": "3.0.1.545"},
        "device": {"id": "B5", "manufacturer": "Apple", "model": "iPhone7,2", "type": "ios"},
        "os": {"name": "iPhone OS", "version": "8.1.3"},
        "network": {"bluetooth": False, "carrier": "T-Mobile", "cellular": True, "wifi": False},
        "screen": {"width": 320},
        "ip": "8.8.8.8",
    }
    assert to_native(given) == {
        "app": {"name": "Initech", "version": "545", "build": "3.0.1.545"},
        "device": {
            "id": "B5",
            "manufacturer": "Apple",
            "model": "iPhone7,2",
            "type": "ios",
            "os": "iPhone OS",
            "os_version": "8.1.3",
        },
        "network": "cellular",
        "network_details": given["network"],
        "screen": {"width": 320},
        "ip": "8.8.8.8",
    }


def test_a_location_keeps_its_place_and_its_consent():
    given = {
        "location": {"city": "Rome", "country": "IT", "latitude": "41.9", "longitude": 12.5, "speed": 0},
        "consent": {"categoryPreferences": {"Advertising": True, "Location": False}},
    }
    assert to_native(given) == {
        "location": {"city": "Rome", "country": "IT", "lat": 41.9, "lon": 12.5, "speed": 0},
        "consent": {"categoryPreferences": {"Advertising": True, "Location": False}, "location": False},
    }


def test_a_native_consent_counts_before_a_category():
    assert to_native({"consent": {"location": True, "categoryPreferences": {"location": False}}})["consent"]["location"]


def test_a_campaign_and_a_session_are_as_in_a_native_event():
    given = {
        "campaign": {"name": "TPS", "source": "Newsletter", "medium": "email", "term": "reports"},
        "session": {"goal": "gift", "mode": "solo"},
        "traits": {"plan": "pro"},
        "groupId": "12345",
    }
    assert to_native(given) == given


def test_a_referrer_object_gives_its_address():
    assert to_native({"referrer": {"id": "A", "type": "dataxu", "url": "https://r"}}) == {
        "referrer": "https://r",
        "referrer_details": {"id": "A", "type": "dataxu"},
    }


def test_what_has_the_wrong_type_for_a_column_is_kept_beside_it():
    given = {
        "page": ["a"],
        "device": "iPhone",
        "os": "iOS",
        "locale": {"language": "de"},
        "location": {"latitude": "north", "city": {"name": "Rome"}},
        "consent": {"location": "yes"},
        "ip": None,
    }
    assert to_native(given) == {
        "page_details": {"path": ["a"]},
        "device_details": "iPhone",
        "device": {"os": "iOS"},
        "locale_details": {"language": "de"},
        "location": {"latitude_details": "north", "city_details": {"name": "Rome"}},
        "consent": {"location_details": "yes"},
    }
