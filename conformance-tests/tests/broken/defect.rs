use leasehold_conformance::Clause;
use strum::{Display, VariantArray};

/// The table of defects: what is done wrong, the clause that it breaks, the case that is named for it.
macro_rules! defects {
    ($($(#[doc = $line:literal])* $defect:ident [$clause:ident] $case:literal;)+) => {
        /// One thing that a backend does wrong. Each is caught by the case that is named for it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Display, VariantArray)]
        pub(crate) enum Defect {
            $($(#[doc = $line])* $defect),+
        }

        impl Defect {
            /// The case that is named for it.
            pub(crate) fn caught_by(self) -> &'static str {
                match self {
                    $(Self::$defect => $case),+
                }
            }

            /// The clause that the report has to name.
            pub(crate) fn breaks(self) -> Clause {
                match self {
                    $(Self::$defect => Clause::$clause),+
                }
            }
        }
    };
}

defects! {
    // Taking jobs in.
    AltersPayloads [P6] "returns_payloads_byte_for_byte";
    AnswersCreatedForAKnownId [P2] "takes_an_id_once";
    /// A store in memory that says it survives the loss of nodes.
    ClaimsToBeDurable [P1] "keeps_jobs_whose_producer_is_gone";
    /// MRQ: its counts are kept beside its jobs, so that a retried call counts twice.
    CountsARepeatedEnqueue [E2] "gives_a_repeated_call_the_effect_of_one";
    /// Each newcomer puts the job off, however long the first one waits already.
    DebouncesForEver [P4] "puts_a_debounced_job_off_but_not_for_ever";
    /// A period that ends with the job, and not with the time.
    EndsPeriodsWithTheJob [P4] "holds_a_key_for_its_period";
    FailsABatchForADuplicate [P4] "takes_the_rest_of_a_batch_with_a_duplicate";
    ForgetsHeaders [P6] "returns_every_option_as_given";
    ForgetsUniqueKeys [P4] "tells_who_holds_a_key";
    FreesKeysAtTheClaim [P4] "holds_a_key_until_its_job_has_ended";
    HoldsKeysPastTheClaim [P4] "frees_a_key_once_its_job_is_claimed";
    /// The producer is told that its payload is there, and the older one runs.
    KeepsWhatItSaysIsReplaced [P4] "replaces_what_a_waiting_job_brings";
    LosesOneOfABatch [P3] "answers_a_batch_in_order";
    NeverFreesKeys [P4] "frees_a_key_however_its_job_ends";
    /// pymjq: a capped collection drops the oldest jobs, which nobody has run.
    OverwritesWaitingJobs [P1] "keeps_every_job_of_a_large_backlog";
    /// A newcomer whose answer was lost, and that comes again, undoes what others brought since.
    ReplacesAgainWhenRepeated [E2] "replaces_once_when_a_newcomer_is_repeated";
    TakesBatchesByHalves [P3] "leaves_no_half_of_a_dropped_batch";
    TakesARetriedEnqueueTwice [P2] "knows_the_id_of_an_ended_job";

    // Giving them out.
    BlocksBehindWhatDoesNotMatch [C7] "lets_what_does_not_match_block_nothing";
    BreaksTiesByIdBeforeDue [C6] "gives_earlier_due_jobs_first";
    /// MTQ and MRQ: a mutex that is looked at, and taken some time later.
    ChecksALimitThenTakes [C9] "gives_a_mutex_to_one_of_many_who_ask_at_once";
    CountsLimitsByQueue [C9] "keeps_a_limit_across_queues";
    FillsARepeatedClaim [E2] "gives_nothing_to_a_claim_that_is_over";
    ForgetsAClaim [E2] "finds_a_lost_claim_by_its_id";
    /// A visibility time-out: whatever ran out is given to the next who asks.
    GivesExpiredLeasesAtOnce [C1] "gives_no_job_again_before_it_was_recovered";
    GivesInTheWrongOrder [C6] "gives_many_jobs_in_exact_order";
    GivesMoreThanAsked [C11] "gives_at_most_as_many_as_asked_for";
    HandsAJobOutTwice [C1] "gives_each_job_to_one_worker";
    IgnoresDueTimes [C8] "gives_a_job_at_the_moment_it_is_due";
    IgnoresKinds [C7] "keeps_to_the_kinds_of_a_claim";
    IgnoresLimits [C9] "keeps_a_limit_within_a_batch";
    IgnoresOwnLeases [C1] "prefers_the_lease_of_the_job";
    /// A root is a queue like any other, and its pause nobody else's business.
    IgnoresPausedRoots [C10] "gives_nothing_from_under_a_paused_root";
    IgnoresPauses [C10] "gives_nothing_from_a_paused_queue";
    IgnoresQueues [C7] "gives_jobs_of_the_named_queues_only";
    IgnoresTags [C7] "keeps_to_the_tags_that_a_job_must_have";
    IgnoresTheLowestPriority [C7] "keeps_to_the_lowest_priority_of_a_claim";
    /// mongoqueue: a lease of so many days where seconds were meant.
    LeasesInDays [C8] "holds_a_lease_to_its_last_moment";
    LeasesInMilliseconds [C1] "shows_the_job_it_gives";
    MakesEveryLimitAMutex [C9] "reads_each_jobs_own_limit";
    MovesTheLeaseOnARepeatedClaim [E2] "spends_nothing_on_a_repeated_claim";
    NeverResumes [C10] "resumes_a_paused_queue";
    /// pymjq: two consumers read the same job, write that they have it, and both run it.
    ReadsThenWrites [C1] "gives_a_job_to_one_of_many_who_ask_at_once";
    RemembersMoreThanIsHeld [E2] "finds_what_is_left_of_a_lost_claim";
    /// mongoqueue: each claim writes that this is the first attempt, so that no job ever runs out of them.
    ResetsAttemptsAtTheClaim [C4] "ends_a_job_when_its_attempts_are_spent";
    ReversesPriorities [C6] "gives_higher_priorities_first";
    SaysToWaitForParkedJobs [P7] "tells_nobody_to_wait_for_a_parked_job";
    SaysToWaitTooLong [C8] "never_says_to_wait_too_long";
    SwapsTheTagRules [C7] "keeps_to_the_tags_that_a_worker_offers";
    TakesQueuesInTurn [C6] "gives_several_queues_in_one_order";
    UsesTheCallersClock [C8] "judges_time_by_its_own_clock";
    WaitsForRoomAllTheSame [C9] "ends_a_job_that_would_wait_for_room";

    // What is written under leases.
    AcceptsAStaleRecovery [C2] "refuses_to_recover_under_a_stale_token";
    AcceptsAStaleRenewal [C2] "refuses_to_renew_under_a_stale_token";
    /// River, pg-boss: by id, if the job runs, whoever it is that says so.
    AcceptsAStaleSettlement [C2] "refuses_to_settle_under_a_stale_token";
    /// Oban, Graphile Worker, asynq, MRQ: by id alone, whatever became of the job meanwhile.
    AcknowledgesByIdOnly [C2] "refuses_the_former_holder_of_a_waiting_job";
    ActsAfterTheDeadline [E3] "answers_a_call_that_is_too_late_with_an_error";
    AltersResults [S6] "returns_results_byte_for_byte";
    AnswersAppliedTwice [C2] "recognises_a_settlement_after_another_claim";
    AnswersLostToARepeatedSettlement [C2] "answers_a_repeated_settlement_as_already_applied";
    ClearsProgressOnRenewal [S6] "keeps_the_latest_progress";
    ConfusesTheTokensOfAClaim [C2] "refuses_the_token_of_another_job";
    FailsABatchForALostItem [C11] "lets_a_lost_item_spoil_no_other";
    ForgetsAnAttempt [C4] "spends_an_attempt_with_each_claim";
    ForgetsTheReason [S1] "brings_a_job_where_the_verdict_says";
    /// A failed job is in no state that anybody looks for.
    LosesRetriedJobsInLimbo [S3] "changes_only_the_time_on_retry";
    RefusesALateHolder [C2] "never_refuses_an_honest_holder";
    /// mongoqueue's and MRQ's queues are first in, first out: what comes back stands at the end.
    ReleasesToTheEnd [C6] "keeps_the_place_of_a_released_job";
    RenewsInWordOnly [C2] "never_shortens_a_lease";
    ResurrectsEndedJobs [S1] "keeps_an_ended_job_ended";
    RetriesTooEarly [S3] "gives_no_retried_job_before_its_time";
    /// apalis: no back-off is kept, and 25 attempts are spent in a moment.
    RetriesWithoutABackOff [S3] "burns_no_attempts_while_a_backoff_runs";
    /// mongoqueue: its README says that a release costs no attempt.
    SpendsAttemptsOnRelease [C4] "gives_the_attempt_back_on_release";
    TakesAnyVerdictForTheSame [C2] "refuses_another_verdict_after_the_settlement";

    // Taking back what was lost.
    CountsACrashForEachSweeper [C5] "recovers_a_lease_once";
    CountsNoCrash [C5] "spends_the_attempt_of_a_crash";
    ForgetsFailuresOfCrashes [S4] "remembers_the_failure_of_a_lost_attempt";
    /// apalis, Graphile Worker: a crash costs no attempt, so that a poison job runs for ever.
    GivesBackTheAttemptOfACrash [C5] "quarantines_a_poison_job";
    ListsTheLatestLossFirst [C3] "lists_lost_leases_longest_ago_first";
    LosesProgressWithTheLease [S6] "keeps_what_the_lost_attempt_wrote";
    /// MRQ: the sweeper puts back whatever it finds, however often it was tried.
    SweepsBeyondTheLastAttempt [C4] "fails_a_job_that_crashed_on_its_last_attempt";
    RecoversLiveLeases [C2] "recovers_no_live_lease";
    /// mongoqueue: a repair that frees one item a call.
    RecoversOneACall [C3] "lets_a_held_job_spoil_no_recovery";
    RecoversWithoutAWait [S3] "makes_a_recovered_job_wait";
    /// River 1302: the rescuer updates by id alone, and a job that had completed meanwhile runs again.
    SweepsByIdOnly [C2] "recovers_no_job_that_was_settled_meanwhile";
    TellsNoPolicy [C3] "tells_what_a_policy_needs_of_a_lost_lease";
    TrustsWhatItRead [C2] "recovers_no_lease_that_was_renewed_meanwhile";

    // Logs.
    AcceptsAStaleLogLine [L2] "refuses_to_log_under_a_stale_token";
    /// It reads how many lines there are, and then appends.
    AppendsAfterReading [L2] "takes_racing_appends_once";
    CapsNoLog [L1] "drops_the_oldest_lines_at_the_cap";
    FailsAppendsAtTheCap [L1] "bounds_a_log_by_its_bytes_too";
    ForgetsLevels [L2] "returns_lines_as_they_were_written";
    HidesTheGap [L3] "tells_a_slow_reader_of_the_gap";
    ReadsTheLastLineAgain [L3] "resumes_after_a_sequence";
    ReturnsTheLatestLineFirst [L2] "returns_lines_in_the_order_written";
    ReusesLogSequences [L2] "numbers_the_lines_of_all_attempts_upwards";
    TakesLinesTwice [L2] "takes_a_repeated_append_once";

    // What operators see and do.
    AmendsLaterJobs [F4] "leaves_later_jobs_out_of_an_amendment";
    AmendsWithoutABound [F4] "amends_by_filter_in_bounded_batches";
    AnswersInTheOrderOfIds [F4] "finds_jobs_in_the_order_asked";
    /// MRQ: a cancelled job that runs is ended behind its holder's back.
    CancelsARunningJobAtOnce [S5] "lets_an_asked_job_succeed";
    /// It looks whether the job waits, and not for what.
    CancelsWhatWasUnparked [P7] "cancels_parked_jobs_and_no_others";
    /// MRQ: counters that go below zero.
    CountsBelowZero [S2] "adds_up_after_every_step";
    CountsEveryQueue [F4] "counts_by_queue_and_state";
    CountsTheScheduledAsQueued [S2] "moves_jobs_from_scheduled_to_queued_by_time_alone";
    DeletesRunningJobs [S1] "allows_operators_the_legal_transitions_only";
    ForgetsACancellationOnRetry [S5] "cancels_an_asked_job_that_comes_back";
    ForgetsDeletedJobs [S2] "deletes_a_job_for_every_reader";
    ForgetsTheFirstFailure [S4] "remembers_the_first_and_the_latest_failures";
    ForgetsWhoFailed [S4] "tells_who_failed_when_and_why";
    HidesACancellation [S5] "asks_a_running_job_to_end";
    HidesTheOldestDue [F4] "tells_when_the_oldest_due_job_became_due";
    IgnoresAFieldOfAFilter [F4] "keeps_to_every_field_of_a_filter";
    IgnoresANewPriority [C6] "reorders_a_waiting_job";
    IgnoresTheOrderOfAList [F4] "lists_jobs_newest_or_oldest_first";
    KeepsFailuresLikeSuccesses [F5] "dates_an_ended_job_by_its_retention";
    /// A requeue that writes the job anew, and so begins its history anew too.
    LosesHistoryOnRequeue [S4] "keeps_its_history_over_a_requeue";
    MatchesTextInAnyCase [P6] "finds_text_in_payloads_literally";
    PagesByOffset [F4] "amends_all_jobs_that_leave_the_filter";
    PostponesOnlyToLater [C8] "postpones_a_waiting_job";
    PreviewsForReal [F4] "changes_nothing_in_a_preview";
    PrunesByAgeAlone [F5] "prunes_no_living_job";
    /// It reads what is over, and then deletes by id.
    PrunesByIdWhatItRead [F5] "prunes_no_job_that_is_requeued_meanwhile";
    PrunesRequeuedJobs [F5] "forgets_the_retention_of_a_requeued_job";
    PrunesTooEarly [F5] "prunes_an_ended_job_after_its_retention";
    PrunesWithoutABound [F5] "prunes_in_bounded_batches";
    /// MTQ: who asks for the failed jobs is given those that run.
    RequeuesRunningJobsAsFailed [S1] "requeues_failed_jobs_and_no_others";
    RequeuesWithOldAttempts [S1] "starts_a_requeued_job_anew";
    ShowsStatesAsWritten [F4] "lists_jobs_in_their_present_state";
    SkipsAJobBetweenPages [F4] "joins_pages_of_any_size_to_one_list";
    /// A cursor of the time alone: of jobs of the same moment the next page shows none.
    SkipsEqualKeys [F4] "pages_stably_while_jobs_come_and_go";
    TakesAnyCursor [F4] "refuses_a_cursor_of_another_list";

    /// Whoever is late undoes the delay of a retry.
    UnparksWhatWaitsForItsRetry [P7] "unparks_nothing_but_what_is_parked";

    // Moving to another store.
    AdmitsOverWhatIsThere [P8] "leaves_what_is_there_as_it_is";
    AdmitsWithoutKeys [P8] "takes_a_job_in_with_its_key_or_not_at_all";
    AdmitsWithoutLogs [P8] "takes_a_job_in_as_it_was";
    DeletesWhatWasSentRoundAgain [P8] "deletes_no_job_that_was_sent_round_again";
    RequeuesWithdrawnJobs [P8] "leaves_a_withdrawn_job_alone";

    // The fleet, schedules and events.
    DeletesWhatWasWrittenSince [F6] "deletes_a_register_as_it_was_read";
    EndsItsEvents [F3] "tells_that_jobs_wait";
    FiresTicksEarly [F2] "shows_the_registers_that_are_due";
    /// Each scheduler that fires a tick makes a job of its own.
    GivesTicksIdsOfItsOwn [F2] "makes_one_job_of_a_tick_for_two_hundred_schedulers";
    GivesFromRatedQueues [F8] "gives_nothing_from_a_queue_with_a_rate_unasked";
    KeepsRegistersForEver [F6] "prunes_registers_that_expired";
    ForgetsWhatLeaversSaid [F1] "keeps_what_a_worker_said";
    /// apalis: a worker that starts again under its name is taken for the one that died.
    KeysWorkersByName [F1] "tells_two_starts_of_a_worker_apart";
    KeepsTheFirstWord [F1] "shows_the_latest_that_a_worker_said";
    /// Whoever unparks some unparks all.
    LetsAllOfAFlowGo [F9] "runs_a_job_after_those_it_waits_for";
    MixesSpaces [F6] "keeps_registers_of_a_name_apart_by_space";
    NeverAsksToStop [F1] "tells_workers_to_stop";
    NeverShowsAWorkerLost [F1] "shows_a_silent_worker_lost";
    RefusesARepeatedRegister [F6] "writes_a_repeated_register_once";
    ShowsLeaversLost [F1] "shows_a_worker_that_left";
    SwallowsCancellations [S5] "tells_a_holder_of_a_cancellation";
    SwallowsGaps [F3] "lets_a_slow_reader_hold_up_nobody";
    TellsEverybodyOfLines [F3] "tells_of_new_lines_only_who_asked";
    TellsMoreThanAsked [F3] "tells_of_the_asked_queues_only";
    TellsAnotherHour [F6] "tells_the_hour_with_registers";
    /// What is there stays, and whoever writes over it is told that all is well.
    WritesLocksOnce [F7] "frees_the_lock_of_a_holder_that_is_gone";
    WritesOverRegisters [F6] "writes_a_register_only_by_its_version";
}
