#include "vmm/console/json_writer.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "tests/unit/vmm/console/fake_management.hpp"
#include "vmm/console/commands.hpp"

using namespace bulkhead;

TEST_CASE("objects and arrays nest, with commas where they belong") {
    StringSink sink;
    JsonWriter writer(sink);
    writer.begin_object();
    writer.text("name", "web");
    writer.number("count", ~u64{0});
    writer.boolean("yes", true);
    writer.key("nothing");
    writer.null();
    writer.key("list");
    writer.begin_array();
    writer.begin_array();
    writer.end_array();
    writer.number(1);
    writer.begin_object();
    writer.end_object();
    writer.text("x");
    writer.end_array();
    writer.seconds("time", 12'345'678'901);
    writer.printed("size", ByteSize{512 * mib});
    writer.end_object();
    CHECK(
        sink.text ==
        R"({"name":"web","count":18446744073709551615,"yes":true,"nothing":null,"list":[[],1,{},"x"],"time":12.345,"size":"512M"})");
    CHECK(nlohmann::json::accept(sink.text));
}

TEST_CASE("deep nesting keeps its commas") {
    StringSink sink;
    JsonWriter writer(sink);
    for (int i = 0; i < 60; ++i) {
        writer.begin_array();
        writer.number(1);
    }
    for (int i = 0; i < 60; ++i) writer.end_array();
    CHECK(nlohmann::json::accept(sink.text));
}

TEST_CASE("text is escaped to ASCII and comes back as it was") {
    const auto written = [](std::string_view text) {
        StringSink sink;
        JsonWriter(sink).text(text);
        return sink.text;
    };
    CHECK(written("a\"b\\c/d") == R"("a\"b\\c/d")");
    CHECK(written("\n\x1b\x7f\t") == R"("\n\u001b\u007f\u0009")");
    CHECK(written("\xC3\xA9\xF0\x9F\x98\x80") == R"("\u00e9\ud83d\ude00")");
    CHECK(written("\xFF") == R"("\ufffd")");
    std::mt19937 random(3);
    for (int i = 0; i < 2000; ++i) {
        std::string text;
        for (unsigned n = random() % 12; n > 0; --n) {
            const u32 code = random() % 0x110000;
            if (random() % 2 == 0) {
                text += static_cast<char>(random() % 128);
            } else if (code < 0xD800 || code > 0xDFFF) {
                text += nlohmann::json::parse("\"\\u00e9\"").get<std::string>();
            }
        }
        const std::string json = written(text);
        for (const char c : json) REQUIRE((c >= 0x20 && c < 0x7F));
        REQUIRE(nlohmann::json::parse(json).get<std::string>() == text);
    }
}
