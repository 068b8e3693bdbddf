//! Tests the statements of the standards that bind a server, over TCP. `scripts/conformance.py` makes docs/CONFORMANCE.md from
//! the table below.

mod auth;
mod connect;
mod delivery;
mod format;
mod net;
mod publish;
mod subscribe;
mod will;

use mqtt_proto::Version;

/// Lists the statements that each scenario tests: those of 3.1.1 in the first brackets, those of 5 in the second. A scenario is
/// one test for each version with statements.
macro_rules! statements {
    ($($module:ident::$scenario:ident: [$($v4:ident)*] [$($v5:ident)*];)*) => {
        mod v3_1_1 {
            use super::*;
            $(statements!(@test $module $scenario V311 $($v4)*);)*
        }
        mod v5 {
            use super::*;
            $(statements!(@test $module $scenario V5 $($v5)*);)*
        }
    };
    (@test $module:ident $scenario:ident $version:ident) => {};
    (@test $module:ident $scenario:ident $version:ident $($shown:ident)+) => {
        #[test]
        fn $scenario() {
            $module::$scenario(Version::$version);
        }
    };
}

statements! {
    format::ill_formed_text_closes: [mqtt_1_5_3_1] [mqtt_1_5_4_1];
    format::a_null_character_closes: [mqtt_1_5_3_2 mqtt_4_7_3_2] [mqtt_1_5_4_2 mqtt_4_7_3_2];
    format::a_byte_order_mark_stays: [mqtt_1_5_3_3] [mqtt_1_5_4_3];
    format::lengths_take_as_few_bytes_as_they_can: [] [mqtt_1_5_5_1];
    format::both_strings_of_a_pair_are_text: [] [mqtt_1_5_7_1];
    format::reserved_flags_close: [mqtt_2_2_2_1 mqtt_2_2_2_2] [mqtt_2_1_3_1];
    format::packet_identifier_0_closes: [mqtt_2_3_1_1] [];
    format::packet_identifiers_are_unused:
        [mqtt_2_3_1_4 mqtt_4_3_2_1 mqtt_4_3_3_1]
        [mqtt_2_2_1_4 mqtt_4_3_2_1 mqtt_4_3_2_2 mqtt_4_3_3_1 mqtt_4_3_3_2];
    format::qos_0_has_no_packet_identifier: [mqtt_2_3_1_5 mqtt_4_3_1_1] [mqtt_2_2_1_2 mqtt_2_2_2_1 mqtt_4_3_1_1];
    format::answers_carry_the_packet_identifier: [mqtt_2_3_1_6] [mqtt_2_2_1_5];
    format::suback_and_unsuback_carry_the_packet_identifier:
        [mqtt_2_3_1_7 mqtt_3_8_4_1 mqtt_3_8_4_2 mqtt_3_10_4_4 mqtt_3_10_4_5]
        [mqtt_2_2_1_6 mqtt_3_8_4_1 mqtt_3_8_4_2 mqtt_3_10_4_4 mqtt_3_10_4_5];
    format::pubrel_flags: [mqtt_3_6_1_1] [mqtt_3_6_1_1];
    format::subscribe_flags: [mqtt_3_8_1_1] [mqtt_3_8_1_1];
    format::unsubscribe_flags: [mqtt_3_10_1_1] [mqtt_3_10_1_1];
    format::disconnect_flags: [mqtt_3_14_1_1] [mqtt_3_14_1_1];
    format::auth_flags: [] [mqtt_3_15_1_1];
    format::a_topic_name_is_there_and_text: [mqtt_3_3_2_1] [mqtt_3_3_2_1];
    format::no_wildcard_in_a_topic_name: [mqtt_3_3_2_2 mqtt_4_7_1_1] [mqtt_3_3_2_2 mqtt_4_7_0_1];
    format::multi_level_wildcard_is_last: [mqtt_4_7_1_2] [mqtt_4_7_1_1];
    format::single_level_wildcard_is_a_level: [mqtt_4_7_1_3] [mqtt_4_7_1_2];
    format::wildcards_work_in_filters: [mqtt_3_8_3_2] [];
    format::an_empty_topic_closes: [mqtt_4_7_3_1] [mqtt_4_7_3_1];
    format::a_topic_has_65535_bytes_at_most: [mqtt_4_7_3_3] [mqtt_4_7_3_3];
    format::packets_come_in_any_pieces: [mqtt_7_1_1_1] [mqtt_4_2_0_1];
    format::a_protocol_violation_closes_its_connection_only: [mqtt_4_8_0_1] [mqtt_4_13_1_1 mqtt_4_13_2_1 mqtt_3_14_2_1];
    format::a_topic_alias_is_not_0: [] [mqtt_3_3_2_8];

    connect::connect_is_first: [mqtt_3_1_0_1] [mqtt_3_1_0_1];
    connect::connect_comes_once: [mqtt_3_1_0_2] [mqtt_3_1_0_2 mqtt_3_2_0_2];
    connect::another_protocol_is_not_served: [mqtt_3_1_2_1] [mqtt_3_1_2_1];
    connect::another_level_is_refused: [mqtt_3_1_2_2] [mqtt_3_1_2_2];
    connect::reserved_connect_flag: [mqtt_3_1_2_3] [mqtt_3_1_2_3];
    connect::a_session_is_resumed:
        [mqtt_3_1_2_4 mqtt_3_1_2_5 mqtt_3_1_4_3 mqtt_3_2_2_2 mqtt_3_2_2_3 mqtt_4_1_0_1]
        [mqtt_3_1_2_5 mqtt_3_1_2_6 mqtt_3_1_2_23 mqtt_3_1_4_4 mqtt_3_2_2_3];
    connect::a_clean_start_forgets: [mqtt_3_1_2_6 mqtt_3_2_2_1] [mqtt_3_1_2_4 mqtt_3_2_2_2];
    connect::the_client_identifier_names_the_session: [mqtt_3_1_3_2] [mqtt_3_1_3_2];
    connect::a_session_outlives_time_while_connected: [mqtt_4_1_0_2] [mqtt_4_1_0_1];
    connect::a_session_expires: [] [mqtt_4_1_0_2];
    will::a_will_is_published: [mqtt_3_1_2_9 mqtt_3_1_2_16 mqtt_3_1_2_17] [mqtt_3_1_2_14 mqtt_3_1_2_15 mqtt_3_1_2_7];
    will::a_will_is_published_when_the_broker_closes: [mqtt_3_1_2_8] [];
    will::a_will_is_published_once: [mqtt_3_1_2_10] [mqtt_3_1_2_10];
    will::disconnect_takes_the_will_back: [mqtt_3_14_4_3] [mqtt_3_14_4_3];
    will::no_will_without_its_flag: [mqtt_3_1_2_12] [];
    will::will_fields_are_there_with_its_flag_only: [mqtt_3_1_2_11] [mqtt_3_1_2_9];
    will::will_qos_is_0_without_its_flag: [mqtt_3_1_2_13] [mqtt_3_1_2_11];
    will::will_retain_is_0_without_its_flag: [mqtt_3_1_2_15] [mqtt_3_1_2_13];
    will::will_qos_is_not_3: [mqtt_3_1_2_14] [mqtt_3_1_2_12];
    connect::user_name_is_there_with_its_flag_only: [mqtt_3_1_2_18 mqtt_3_1_2_19] [mqtt_3_1_2_16 mqtt_3_1_2_17];
    connect::password_is_there_with_its_flag_only: [mqtt_3_1_2_20 mqtt_3_1_2_21] [mqtt_3_1_2_18 mqtt_3_1_2_19];
    connect::no_password_without_user_name: [mqtt_3_1_2_22] [];
    connect::silence_ends_the_connection: [mqtt_3_1_2_24] [mqtt_3_1_2_22 mqtt_3_2_2_22];
    connect::payload_fields_stand_in_their_order: [mqtt_3_1_3_1] [mqtt_3_1_3_1];
    connect::client_identifier_is_there: [mqtt_3_1_3_3] [mqtt_3_1_3_3];
    connect::client_identifier_is_text: [mqtt_3_1_3_4] [mqtt_3_1_3_4];
    connect::usual_client_identifiers_are_allowed: [mqtt_3_1_3_5] [mqtt_3_1_3_5];
    connect::an_empty_client_identifier_becomes_a_unique_one:
        [mqtt_3_1_3_6] [mqtt_3_1_3_6 mqtt_3_1_3_7 mqtt_3_2_2_16];
    connect::an_empty_client_identifier_has_no_session: [mqtt_3_1_3_8 mqtt_3_1_3_9] [];
    will::will_topic_is_text: [mqtt_3_1_3_10] [mqtt_3_1_3_11];
    connect::user_name_is_text: [mqtt_3_1_3_11] [mqtt_3_1_3_12];
    connect::a_wrong_connect_gets_no_connack: [mqtt_3_1_4_1 mqtt_3_2_2_6] [mqtt_3_1_4_1];
    connect::the_second_takes_over: [mqtt_3_1_4_2] [mqtt_3_1_4_3];
    connect::who_may_not_is_refused:
        [mqtt_3_1_4_5 mqtt_3_2_2_4 mqtt_3_2_2_5]
        [mqtt_3_1_4_2 mqtt_3_1_4_6 mqtt_3_2_2_6 mqtt_3_2_2_7 mqtt_3_2_2_8];
    connect::connack_is_success_and_first: [mqtt_3_1_4_4 mqtt_3_2_0_1] [mqtt_3_1_4_5 mqtt_3_2_0_1 mqtt_3_2_2_1];
    connect::nothing_is_unsupported: [] [mqtt_3_2_2_9 mqtt_3_2_2_10 mqtt_3_2_2_12 mqtt_3_2_2_13];
    will::a_delayed_will_is_forgotten_by_who_is_back: [] [mqtt_3_1_3_9];
    will::a_delayed_will_goes_out_with_its_session: [] [mqtt_3_1_2_8];
    will::will_user_properties_keep_their_order: [] [mqtt_3_1_3_10];

    delivery::what_is_unacknowledged_is_sent_again:
        [mqtt_3_3_1_1 mqtt_4_4_0_1 mqtt_4_6_0_1]
        [mqtt_3_3_1_1 mqtt_4_4_0_1 mqtt_4_3_2_3 mqtt_4_3_3_3 mqtt_4_3_3_4 mqtt_4_3_3_5 mqtt_4_3_3_6];
    delivery::qos_0_has_no_dup: [mqtt_3_3_1_2] [mqtt_3_3_1_2];
    delivery::dup_is_the_senders_own: [mqtt_3_3_1_3] [mqtt_3_3_1_3];
    delivery::qos_3_closes: [mqtt_3_3_1_4] [mqtt_3_3_1_4];
    delivery::each_qos_is_answered_its_way: [mqtt_3_3_4_1] [mqtt_3_3_4_1 mqtt_4_3_2_4 mqtt_4_3_3_8 mqtt_4_3_3_11];
    delivery::who_may_not_publish_is_told_as_the_version_can: [mqtt_3_3_5_2] [];
    delivery::puback_makes_the_identifier_new: [mqtt_4_3_2_2] [mqtt_4_3_2_5];
    delivery::a_qos_2_message_is_routed_once: [mqtt_4_3_3_2] [mqtt_4_3_3_10 mqtt_4_3_3_12];
    delivery::a_refused_qos_2_identifier_is_new: [] [mqtt_4_3_3_9];
    delivery::qos_2_ends_also_for_what_expired: [] [mqtt_4_3_3_13];
    delivery::what_was_sent_does_not_expire: [] [mqtt_4_3_3_7];
    delivery::a_refused_message_is_not_sent_again: [] [mqtt_4_4_0_2];
    delivery::messages_come_in_their_order: [mqtt_4_6_0_5 mqtt_4_6_0_6] [mqtt_4_6_0_5 mqtt_4_6_0_6];
    delivery::a_message_goes_to_all_sessions_that_match: [mqtt_4_5_0_1] [mqtt_4_5_0_1];
    delivery::acknowledgements_say_how_it_went:
        [] [mqtt_3_4_2_1 mqtt_3_5_2_1 mqtt_3_6_2_1 mqtt_3_7_2_1];
    delivery::no_more_under_way_than_the_client_takes:
        [] [mqtt_3_3_4_9 mqtt_3_3_4_10 mqtt_4_9_0_1 mqtt_4_9_0_2 mqtt_4_9_0_3];
    delivery::a_shared_qos_2_message_waits_for_its_client: [] [mqtt_4_8_2_4];
    delivery::a_shared_qos_2_message_ends_with_its_session: [] [mqtt_4_8_2_5];
    delivery::a_refused_shared_message_goes_to_nobody_else: [] [mqtt_4_8_2_6];
    delivery::answers_fit_the_client:
        [] [mqtt_3_1_2_24 mqtt_3_1_2_25 mqtt_3_2_2_19 mqtt_3_2_2_20 mqtt_3_4_2_2 mqtt_3_4_2_3 mqtt_3_5_2_2 mqtt_3_5_2_3
            mqtt_3_6_2_2 mqtt_3_6_2_3 mqtt_3_7_2_2 mqtt_3_7_2_3 mqtt_3_9_2_1 mqtt_3_9_2_2 mqtt_3_11_2_1 mqtt_3_11_2_2
            mqtt_3_14_2_3 mqtt_3_14_2_4];
    delivery::auth_fits_the_client: [] [mqtt_3_15_2_2 mqtt_3_15_2_3];
    delivery::problems_are_told_to_who_wants_to_know: [] [mqtt_3_1_2_29];
    delivery::disconnect_follows_connack_only: [] [mqtt_3_14_0_1];
    delivery::disconnect_is_last_and_has_no_session_expiry: [] [mqtt_3_14_2_2 mqtt_3_14_4_1 mqtt_3_14_4_2];

    publish::properties_are_forwarded_unaltered:
        [] [mqtt_3_3_2_4 mqtt_3_3_2_15 mqtt_3_3_2_16 mqtt_3_3_2_17 mqtt_3_3_2_18 mqtt_3_3_2_20];
    publish::what_expired_is_not_delivered: [] [mqtt_3_3_2_5];
    publish::the_remaining_expiry_is_forwarded: [] [mqtt_3_3_2_6];
    publish::aliases_end_with_their_connection: [] [mqtt_3_3_2_7];
    publish::every_alias_up_to_the_maximum_is_taken: [] [mqtt_3_3_2_12];
    publish::aliases_stay_below_the_clients_maximum: [] [mqtt_3_1_2_26 mqtt_3_1_2_27 mqtt_3_3_2_11];
    publish::a_response_topic_is_a_topic_name: [] [mqtt_3_3_2_13 mqtt_3_3_2_14];
    publish::a_content_type_is_text: [] [mqtt_3_3_2_19];
    publish::a_client_sends_no_subscription_identifier: [] [mqtt_3_3_4_6];
    publish::no_response_information_unasked: [] [mqtt_3_1_2_28];

    subscribe::a_retained_message_is_kept_with_its_qos:
        [mqtt_3_3_1_5 mqtt_3_3_1_6 mqtt_3_3_1_7 mqtt_3_3_1_8] [mqtt_3_3_1_5];
    subscribe::retain_is_0_for_established_subscriptions: [mqtt_3_3_1_9] [mqtt_3_3_1_12];
    subscribe::retain_is_as_published_where_asked: [] [mqtt_3_3_1_13];
    subscribe::an_empty_message_clears_what_is_retained: [mqtt_3_3_1_10 mqtt_3_3_1_11] [mqtt_3_3_1_6 mqtt_3_3_1_7];
    subscribe::what_is_not_retained_changes_nothing: [mqtt_3_3_1_12] [mqtt_3_3_1_8];
    subscribe::retain_handling_0: [] [mqtt_3_3_1_9];
    subscribe::retain_handling_1: [] [mqtt_3_3_1_10];
    subscribe::retain_handling_2: [] [mqtt_3_3_1_11];
    subscribe::overlapping_subscriptions_give_the_highest_qos: [mqtt_3_3_5_1] [mqtt_3_3_4_2];
    subscribe::all_subscription_identifiers_go_with_the_message: [] [mqtt_3_3_4_3 mqtt_3_3_4_4 mqtt_3_3_4_5];
    subscribe::filters_are_text: [mqtt_3_8_3_1] [mqtt_3_8_3_1];
    subscribe::a_subscribe_without_filters_closes: [mqtt_3_8_3_3] [mqtt_3_8_3_2];
    subscribe::no_local_hides_own_messages: [] [mqtt_3_8_3_3];
    subscribe::no_local_is_not_for_shared_subscriptions: [] [mqtt_3_8_3_4];
    subscribe::reserved_subscription_options_close: [] [mqtt_3_8_3_5];
    subscribe::a_subscription_is_replaced: [mqtt_3_8_4_3] [mqtt_3_8_4_3 mqtt_3_8_4_4];
    subscribe::several_filters_are_asked_for_at_once: [mqtt_3_8_4_4] [mqtt_3_8_4_5];
    subscribe::each_filter_gets_its_code_in_order:
        [mqtt_3_8_4_5 mqtt_3_9_3_1] [mqtt_3_8_4_6 mqtt_3_8_4_7 mqtt_3_9_3_1];
    subscribe::the_lower_qos_counts: [mqtt_3_8_4_6] [mqtt_3_8_4_8];
    subscribe::codes_are_those_of_the_packet: [mqtt_3_9_3_2] [mqtt_3_9_3_2 mqtt_3_11_3_2];
    subscribe::filters_to_leave_are_text: [mqtt_3_10_3_1] [mqtt_3_10_3_1];
    subscribe::an_unsubscribe_without_filters_closes: [mqtt_3_10_3_2] [mqtt_3_10_3_2];
    subscribe::filters_to_leave_are_compared_as_written: [mqtt_3_10_4_1] [mqtt_3_10_4_1];
    subscribe::what_began_is_delivered_after_unsubscribe:
        [mqtt_3_10_4_2 mqtt_3_10_4_3] [mqtt_3_10_4_2 mqtt_3_10_4_3];
    subscribe::several_filters_are_left_at_once: [mqtt_3_10_4_6] [mqtt_3_10_4_6 mqtt_3_11_3_1];
    subscribe::a_ping_is_answered: [mqtt_3_12_4_1] [mqtt_3_12_4_1];
    subscribe::topics_reach_whose_filters_match:
        [mqtt_3_3_2_3 mqtt_4_7_2_1 mqtt_4_7_3_4] [mqtt_3_3_2_3 mqtt_4_7_2_1 mqtt_4_7_3_4];
    subscribe::share_names_are_well_formed: [] [mqtt_4_8_2_1 mqtt_4_8_2_2];
    subscribe::a_shared_subscription_keeps_its_qos: [] [mqtt_4_8_2_3];

    auth::a_method_leads_to_connack: [] [mqtt_4_12_0_2 mqtt_4_12_0_5 mqtt_3_15_2_1];
    auth::an_unknown_method_is_refused: [] [mqtt_4_12_0_1];
    auth::a_wrong_answer_is_refused: [] [mqtt_4_12_0_4];
    auth::without_method_there_is_no_auth: [] [mqtt_4_12_0_6];
    auth::a_client_authenticates_again: [] [mqtt_4_12_1_1];
    auth::failing_again_ends_the_connection: [] [mqtt_4_12_1_2];
}

/// The text of the standard requires this without a statement.
#[test]
fn authentication_methods_do_not_change() {
    auth::another_method_in_auth_is_an_error(Version::V5);
}

#[test]
fn one_message_more_than_the_broker_takes_is_an_error() {
    delivery::the_brokers_own_receive_maximum_is_kept(Version::V5);
}

#[test]
fn publishing_where_one_may_not_is_told_in_5() {
    delivery::who_may_not_publish_is_told_as_the_version_can(Version::V5);
}

#[test]
fn wills_go_out_whoever_closes_in_5() {
    will::a_will_is_published_when_the_broker_closes(Version::V5);
    will::no_will_without_its_flag(Version::V5);
}
